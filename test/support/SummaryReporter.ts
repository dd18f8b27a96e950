/** Leaves the one line that scripts/test ends with: "N passed, N failed[, N skipped]". */
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

/** Writes the line into `file` at the end of every run. */
export class SummaryReporter implements Reporter {
  private readonly file: string

  constructor(file: string) {
    this.file = file
  }

  onTestRunEnd(
    modules: ReadonlyArray<TestModule>,
    unhandled: ReadonlyArray<SerializedError>,
    reason: TestRunEndReason
  ): void {
    writeFileSync(this.file, `${summaryOf(modules, unhandled, reason)}\n`)
  }
}
