/** Tests in the guest VM, and what they reported. */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { projectRoot } from "../support/Tree.ts"
import { boot, type Ended } from "./Vm.ts"

/** What asks the kernel for something: everything that limits, measures and kills. The rest runs the same anywhere. */
export const suites: ReadonlyArray<string> = [
  "test/cgroup/",
  "test/guest/",
  "test/sandbox/",
  "test/pool/",
  "test/faults/Cgroups.test.ts",
  "test/faults/Compile.test.ts",
  "test/limits/",
  "test/conformance/",
  "test/attacks/"
].filter((name) => existsSync(join(projectRoot, name)))

/** One test file of vitest's JSON report. */
export interface TestFile {
  readonly name: string
  readonly tests: ReadonlyArray<{ readonly fullName: string; readonly status: string }>
  /** It failed as a file: it could not be loaded, or a hook failed. */
  readonly broken: boolean
}

export interface Results extends Omit<Ended, "report"> {
  /** By path from the checkout; empty if vitest did not come to its end. */
  readonly files: ReadonlyArray<TestFile>
}

/** vitest's own words, as far as they are used here. */
interface VitestReport {
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly status: string
    readonly assertionResults: ReadonlyArray<{ readonly fullName: string; readonly status: string }>
  }>
}

/** What `report` of vitest's JSON says, by file. */
export const filesOf = (report: string): ReadonlyArray<TestFile> => {
  if (report === "") return []
  const { testResults }: VitestReport = JSON.parse(report)
  return testResults.map(({ assertionResults, name, status }) => ({
    name: name.replace(`${projectRoot}/`, ""),
    tests: assertionResults.map(({ fullName, status }) => ({ fullName, status })),
    broken: status === "failed" && !assertionResults.some((test) => test.status === "failed")
  })).toSorted((one, other) => one.name < other.name ? -1 : 1)
}

/** Runs `vitest run ARGS` in the guest VM. */
export const test = async (
  args: ReadonlyArray<string>,
  { onOutput, timeoutMs }: { readonly onOutput: (chunk: Buffer) => void; readonly timeoutMs: number }
): Promise<Results> => {
  const command = [process.execPath, join(projectRoot, "node_modules/vitest/vitest.mjs"), "run", ...args]
  const { report, ...ended } = await boot({ command, onOutput, timeoutMs })
  return { ...ended, files: filesOf(report) }
}
