/**
 * What an application that embeds Stoker imports: the schemas, the services' contracts, and the layer that is a worker.
 * What is not exported here may change at any time.
 */

// Data.
export * as Cron from "./schemas/Cron.ts"
export * as Function from "./schemas/Function.ts"
export * as Ids from "./schemas/Ids.ts"
export * as Job from "./schemas/Job.ts"
export * as JobEvent from "./schemas/JobEvent.ts"
export * as Limits from "./schemas/Limits.ts"
export * as Message from "./schemas/Message.ts"
export * as Outcome from "./schemas/Outcome.ts"
export * as PoolConfig from "./schemas/PoolConfig.ts"
export * as Program from "./schemas/Program.ts"
export * as SandboxClass from "./schemas/SandboxClass.ts"
export * as Settlement from "./schemas/Settlement.ts"
export * as Terms from "./schemas/Terms.ts"
export * as Usage from "./schemas/Usage.ts"
export * as WorkerConfig from "./schemas/WorkerConfig.ts"

// A worker as a program asks it.
export { Worker, type WorkerFailed } from "./actors/Worker.ts"
export {
  ArtefactError,
  ArtefactNotFound,
  artefactPieces,
  type ArtefactRange,
  Artefacts,
  type ArtefactSlice,
  type ArtefactWriter
} from "./layers/artefacts/Artefacts.ts"
export { ConfigSource, type ReadConfig } from "./layers/config/ConfigSource.ts"
export { Control, JobNotEnded, JobNotFound, WorkerAway } from "./layers/control/Control.ts"
export { Operator, ReloadRefused } from "./layers/control/Operator.ts"
export { Overloaded } from "./layers/control/Overloaded.ts"
export { Direct, type Parting } from "./layers/intake/Direct.ts"
export { requestHash } from "./layers/intake/RequestHash.ts"
export {
  IdConflict,
  JobCursor,
  type JobRecord,
  type JobsWanted,
  Journal,
  JournalError,
  type ListedJob,
  type Request
} from "./layers/journal/Journal.ts"
export {
  Log,
  type LogEnd,
  type LogEntry,
  LogError,
  LogNotFound,
  type LogSlice,
  type ReadOptions
} from "./layers/log/Log.ts"

// What can be added to it.
export { type Emitter, Emitters, type Telling } from "./layers/emitter/Emitter.ts"
export { FunctionsRefused } from "./layers/functions/FunctionHost.ts"
export { Functions } from "./layers/functions/Functions.ts"
export { type Delivery, type Intake, Intakes } from "./layers/intake/Intake.ts"
export {
  type Capability,
  type Check,
  type Driver,
  Drivers,
  type Measurement,
  type PhaseEvent,
  type PhaseExit,
  ProvisionFailed,
  type Sandbox,
  SandboxLost,
  SandboxRefused
} from "./layers/sandbox/Sandbox.ts"

// What such things may need, and why a worker may not start.
export { PoolMisconfigured, Pools, type PoolsStats } from "./actors/Pools.ts"
export { AmqpError, type AmqpStatus } from "./layers/amqp/Amqp.ts"
export { CgroupUnavailable } from "./layers/cgroup/Cgroup.ts"
export { DuplicateName } from "./layers/config/DuplicateName.ts"
export { Settings } from "./layers/config/Settings.ts"
export { type Assignment, Executor, type Run, type RunEvent, type StopRequest } from "./layers/executor/Executor.ts"
export { Host, HostError, type HostPaths } from "./layers/host/Host.ts"
export { Ledger, LedgerError, type LedgerRow } from "./layers/ledger/Ledger.ts"

// The functions that come with Stoker.
export { builtIns } from "./functions/BuiltIn.ts"
export { code, CodeArgs } from "./functions/Code.ts"
export { command, CommandArgs } from "./functions/Command.ts"
export { EvalArgs, evalFunction, EvaluationFailed } from "./functions/Eval.ts"
export { fib, FibArgs } from "./functions/Fib.ts"
export { noop, NoopArgs } from "./functions/Noop.ts"
export { PostFailed, wait, WaitArgs } from "./functions/Wait.ts"

// A worker, whole.
export type { OtlpOptions } from "./layers/telemetry/OtlpOptions.ts"
export {
  type AmqpWiring,
  type ApiWiring,
  type Doors,
  type JournalWiring,
  layerApi,
  layerOperator,
  layerPostgres,
  layerWorker,
  type OperatorWiring,
  type WorkerServices,
  type WorkerWiring
} from "./wiring.ts"
