/**
 * What the tests of an embedding application import: a worker that needs no machine, and the stand-ins it is made of.
 * Whatever waits in them waits on Effect's clock, so that `TestClock` owns it.
 */

// A worker, whole.
export { layerWorkerTest, type TestWiring } from "./wiringTest.ts"

// One stand-in each.
export * as ArtefactsMemory from "./layers/artefacts/ArtefactsMemory.ts"
export * as CompileCacheMemory from "./layers/cache/CompileCacheMemory.ts"
export * as ControlTest from "./layers/control/ControlTest.ts"
export * as EmitterTest from "./layers/emitter/EmitterTest.ts"
export * as ExecutorTest from "./layers/executor/ExecutorTest.ts"
export * as HostTest from "./layers/host/HostTest.ts"
export * as IntakeTest from "./layers/intake/IntakeTest.ts"
export * as JournalMemory from "./layers/journal/JournalMemory.ts"
export * as LedgerMemory from "./layers/ledger/LedgerMemory.ts"
export * as LogMemory from "./layers/log/LogMemory.ts"
export * as SandboxTest from "./layers/sandbox/SandboxTest.ts"
