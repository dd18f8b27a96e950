import { configDefaults, defineConfig } from "vitest/config"
import { patience } from "./test/support/Slowness.ts"
import { SummaryReporter } from "./test/support/SummaryReporter.ts"

// Set by scripts/test, which prints the summary as its last line.
const summary = process.env["STOKER_TEST_SUMMARY"]
// Set in the guest VM, whose host reads it.
const report = process.env["STOKER_TEST_REPORT"]

/** Minutes together, and nothing else is at fault when they fail: scripts/test-long runs them, also by their names. */
const long = [
  "test/guestvm/**",
  "test/image/**",
  "test/kubernetes/Faults.test.ts",
  "test/kubernetes/Worker.test.ts",
  "test/microvm/AgentClass.test.ts",
  "test/microvm/Init.test.ts",
  "test/microvm/Qemu.test.ts",
  "test/attacks/Machine.test.ts",
  "test/network/Machines.test.ts"
]

/** What only a lane of its own runs, unless that lane says that it does. */
const lanes: ReadonlyArray<readonly [isRun: boolean, files: ReadonlyArray<string>]> = [
  [process.env["STOKER_TEST_LONG"] === "1", long],
  // Emulated machines with whole distributions, and the leak test: scripts/test-microvm makes their images.
  [process.env["STOKER_TEST_MICROVM"] === "1", ["test/microvmlong/**"]],
  // It needs the network that the others are kept from: scripts/test-microvm runs it first.
  [process.env["STOKER_TEST_DEBIAN"] === "1", ["test/microvmlong/DebianImage.test.ts"]],
  // Real object stores: scripts/test-objectstore unpacks them.
  [process.env["STOKER_TEST_OBJECTSTORE"] === "1", ["test/objectstorelong/**"]],
  // A real control plane: scripts/test-kubernetes has one.
  [process.env["STOKER_TEST_KUBECONFIG"] !== undefined, ["test/controlplane/**"]]
]

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: [...configDefaults.exclude, ...lanes.flatMap(([isRun, files]) => isRun ? [] : files)],
    globalSetup: ["test/support/globalSetup.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: patience(30_000),
    hookTimeout: patience(30_000),
    teardownTimeout: patience(10_000),
    // Real brokers, kernels and clocks on a machine that may be busy. What is reproducible fails twice; what passes at its
    // second try only is named at the end of the run, as a race to be found.
    retry: 1,
    reporters: [
      "default",
      ...(summary === undefined ? [] : [new SummaryReporter(summary)]),
      ...(report === undefined ? [] : [["json", { outputFile: report }] as const])
    ]
  }
})
