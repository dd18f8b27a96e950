/**
 * What an application that embeds Stoker imports: the schemas, the services' contracts, and the layers that make a
 * worker. What is not exported here may change at any time.
 */

// Data.
export * as Function from "./schemas/Function.ts"
export * as Ids from "./schemas/Ids.ts"
export * as Job from "./schemas/Job.ts"
export * as JobEvent from "./schemas/JobEvent.ts"
export * as Limits from "./schemas/Limits.ts"
export * as Outcome from "./schemas/Outcome.ts"
export * as Program from "./schemas/Program.ts"
export * as SandboxClass from "./schemas/SandboxClass.ts"
export * as Settlement from "./schemas/Settlement.ts"
export * as Usage from "./schemas/Usage.ts"
export * as WorkerConfig from "./schemas/WorkerConfig.ts"

// Contracts.
export { Worker, type WorkerFailed } from "./actors/Worker.ts"
export { ConfigSource, type ReadConfig } from "./layers/config/ConfigSource.ts"
export { Control, JobNotFound, Overloaded } from "./layers/control/Control.ts"
export { Operator, ReloadRefused } from "./layers/control/Operator.ts"
export { type Emitter, Emitters, type Telling } from "./layers/emitter/Emitter.ts"
export { type Assignment, Executor, type Run, type RunEvent, type StopRequest } from "./layers/executor/Executor.ts"
export { Host, HostError } from "./layers/host/Host.ts"
export { Direct, type Parting } from "./layers/intake/Direct.ts"
export { type Delivery, type Intake, Intakes } from "./layers/intake/Intake.ts"
export { requestHash } from "./layers/intake/RequestHash.ts"
export { IdConflict, type JobRecord, Journal, JournalError, type Request } from "./layers/journal/Journal.ts"
export {
  Log,
  type LogEnd,
  type LogEntry,
  LogError,
  LogNotFound,
  type LogSlice,
  type ReadOptions
} from "./layers/log/Log.ts"
export { type Check, type Driver, Drivers, ProvisionFailed, type Sandbox } from "./layers/sandbox/Sandbox.ts"

// The functions that every worker has.
export { code, CodeArgs } from "./functions/Code.ts"
export { command, CommandArgs } from "./functions/Command.ts"

// A worker, whole.
export { type AmqpWiring, layerOperator, layerWorker, type OperatorWiring, type WorkerWiring } from "./wiring.ts"
