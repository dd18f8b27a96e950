/** Runs every benchmark one after the other, or those named: `npm run bench -- cold`. Nothing else should be running. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"

/** Needs packages of others, or a host with KVM, so only when it is named. */
const more = ["peers", "microvm", "microvmWarm", "microvm-kvm", "kubernetes"]
const all = [
  "cold",
  "warm",
  "limits",
  "throughput",
  "amqp",
  "noop",
  "memory",
  "followers",
  "start",
  "compileCache",
  "functions",
  "grpc",
  "objectstore"
]
const words = process.argv.slice(2)
const firstFlag = words.findIndex((word) => word.startsWith("--"))
/** What follows the names is for each of them: `microvm-kvm --vmm qemu`. */
const [named, flags] = firstFlag < 0 ? [words, []] : [words.slice(0, firstFlag), words.slice(firstFlag)]
const unknown = named.filter((name) => ![...all, ...more].includes(name))
if (unknown.length > 0) {
  process.stderr.write(`there is no benchmark ${unknown.join(", ")}; there are ${[...all, ...more].join(", ")}\n`)
  process.exit(1)
}
const missed = (named.length > 0 ? named : all).filter(
  (name) =>
    spawnSync(process.execPath, [join(import.meta.dirname, `${name}.ts`), ...flags], { stdio: "inherit" }).status !== 0
)
if (missed.length > 0) process.stdout.write(`\nclaims missed in: ${missed.join(", ")}\n`)
process.exit(missed.length > 0 ? 1 : 0)
