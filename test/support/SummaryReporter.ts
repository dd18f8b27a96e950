/**
 * Names the tests that passed at their second try only, and leaves the one line that scripts/test ends with:
 * "N passed, N failed[, N skipped]".
 */
import { writeFileSync } from "node:fs"
import type { Reporter, SerializedError, TestModule, TestRunEndReason } from "vitest/node"

/**
 * Failed counts everything that may not be overlooked: tests, files that did not load, hooks, errors nobody caught,
 * and, in a run that was broken off, the tests that had no turn.
 */
export const summaryOf = (
  modules: ReadonlyArray<TestModule>,
  unhandled: ReadonlyArray<SerializedError>,
  reason: TestRunEndReason
): string => {
  const count = { passed: 0, failed: unhandled.length, skipped: 0 }
  for (const module of modules) {
    if (module.errors().length > 0) count.failed++
    for (const suite of module.children.allSuites()) if (suite.errors().length > 0) count.failed++
    for (const test of module.children.allTests()) {
      const { state } = test.result()
      if (state === "pending") count[reason === "interrupted" ? "failed" : "skipped"]++
      else count[state]++
    }
  }
  return `${count.passed} passed, ${count.failed} failed${count.skipped > 0 ? `, ${count.skipped} skipped` : ""}`
}

/** The full names of tests that failed once and then passed: a race, in the test or in what it tests. */
export const unsteadyOf = (modules: ReadonlyArray<TestModule>): ReadonlyArray<string> =>
  modules.flatMap((module) =>
    [...module.children.allTests("passed")].filter((test) => test.diagnostic()?.flaky === true)
      .map((test) => `${module.relativeModuleId} > ${test.fullName}`)
  )

/** Writes the line into `file` at the end of every run, and the unsteady ones to `print`. */
export class SummaryReporter implements Reporter {
  private readonly file: string
  private readonly print: (line: string) => void

  constructor(file: string, print = (line: string) => void process.stdout.write(`${line}\n`)) {
    this.file = file
    this.print = print
  }

  onTestRunEnd(
    modules: ReadonlyArray<TestModule>,
    unhandled: ReadonlyArray<SerializedError>,
    reason: TestRunEndReason
  ): void {
    for (const name of unsteadyOf(modules)) this.print(`passed at its second try only: ${name}`)
    writeFileSync(this.file, `${summaryOf(modules, unhandled, reason)}\n`)
  }
}
