/** Runs every benchmark one after the other, or those named: `npm run bench -- cold`. Nothing else should be running. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"

/** Needs packages of others, so only when it is named. */
const more = ["peers"]
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
  "grpc"
]
const named = process.argv.slice(2)
const unknown = named.filter((name) => ![...all, ...more].includes(name))
if (unknown.length > 0) {
  process.stderr.write(`there is no benchmark ${unknown.join(", ")}; there are ${[...all, ...more].join(", ")}\n`)
  process.exit(1)
}
const missed = (named.length > 0 ? named : all).filter(
  (name) => spawnSync(process.execPath, [join(import.meta.dirname, `${name}.ts`)], { stdio: "inherit" }).status !== 0
)
if (missed.length > 0) process.stdout.write(`\nclaims missed in: ${missed.join(", ")}\n`)
process.exit(missed.length > 0 ? 1 : 0)
