import { defineConfig } from "vitest/config"
import { SummaryReporter } from "./test/support/SummaryReporter.ts"

// Set by scripts/test, which prints the summary as its last line.
const summary = process.env["STOKER_TEST_SUMMARY"]

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/globalSetup.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 30_000,
    teardownTimeout: 10_000,
    // Real brokers, kernels and clocks on a machine that may be busy. What is reproducible fails twice; what passes at its
    // second try only is named at the end of the run, as a race to be found.
    retry: 1,
    reporters: summary === undefined ? ["default"] : ["default", new SummaryReporter(summary)]
  }
})
