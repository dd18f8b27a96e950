/**
 * What an application imports that only asks a worker (`stoker/client`): the client's contract, its layers over gRPC and
 * HTTP, and what they speak of. Nothing of the worker is loaded with it.
 */
export * as Function from "./schemas/Function.ts"
export * as Ids from "./schemas/Ids.ts"
export * as JobView from "./schemas/JobView.ts"
export * as Limits from "./schemas/Limits.ts"
export * as Outcome from "./schemas/Outcome.ts"
export * as Terms from "./schemas/Terms.ts"

export {
  ClientError,
  type ClientFailure,
  type ClientFollowRequest,
  ConnectionError,
  ConnectionProblem,
  type OutputSlice,
  StokerClient
} from "./client/StokerClient.ts"
export * as StokerClientGrpc from "./client/StokerClientGrpc.ts"
export * as StokerClientHttp from "./client/StokerClientHttp.ts"
export {
  type Address,
  type CredentialFiles,
  type Credentials,
  parseAddress,
  readCredentials,
  type Target
} from "./client/Target.ts"
export type {
  FollowEvent,
  FollowFrom,
  FollowRequest,
  JobPage,
  JobRef,
  ListRequest,
  ReadRequest,
  StartRequest
} from "./layers/api/JobApi.ts"
