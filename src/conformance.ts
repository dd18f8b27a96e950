/**
 * What the makers of a driver or an executor import: the cases that it has to pass. They know no test framework: each is
 * an effect that fails with what was expected and what was seen.
 */
export { type Case, casesFor, ConformanceFailure } from "./conformance/Case.ts"
export { ConformanceDriver, ConformanceHost } from "./conformance/ConformanceHost.ts"
export { driverCases } from "./conformance/DriverCases.ts"
export { executorCases } from "./conformance/ExecutorCases.ts"
