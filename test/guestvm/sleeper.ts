/** A process that has a guest VM and waits for it, to be killed. */
import { boot } from "./Vm.ts"

await boot({
  command: ["/bin/sh", "-c", "echo up; sleep 1000"],
  timeoutMs: 300_000,
  onOutput: (chunk) => process.stdout.write(chunk)
})
