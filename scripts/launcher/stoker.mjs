#!/usr/bin/env node
// The entry for `npx stoker` and `node dist/stoker.mjs`. Kept in the language of old Nodes: it must be able to say no.
// Under an old Node it runs ./stoker beside it, which finds the locked one. Node before 22.15 cannot replace its own
// process, so this one stays as a go-between: it hands on signals and the exit code. Services should start ./stoker.
import { spawn } from "node:child_process"
import { constants } from "node:os"
import { fileURLToPath } from "node:url"

const [major, minor] = process.versions.node.split(".").map(Number)
if (major > 22 || (major === 22 && minor >= 19)) {
  await import("./main.mjs")
} else {
  const child = spawn(fileURLToPath(new URL("./stoker", import.meta.url)), process.argv.slice(2), { stdio: "inherit" })
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR2"]) process.on(signal, () => child.kill(signal))
  child.on("error", (error) => {
    process.stderr.write(`stoker: cannot start ${error.path}: ${error.message}\n`)
    process.exitCode = 69
  })
  child.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]))
}
