/** Called by scripts/test-microvm when vitest has ended: `node writeReport.ts COMMIT JSON NOTES`. */
import { existsSync, readFileSync } from "node:fs"
import { filesOf } from "../guestvm/Suites.ts"
import * as Notes from "./Notes.ts"
import * as Report from "./Report.ts"

const [commit = "", json = "", notes = ""] = process.argv.slice(2)
if (commit === "") process.stdout.write(`${Report.commitOf()}\n`)
else if (existsSync(json)) Report.write(filesOf(readFileSync(json, "utf8")), Notes.read(notes), commit)
else process.stderr.write("test-microvm: vitest left no report: docs/microvm-report.md stays as it is\n")
