/** What of Kubernetes' objects is read here, as its API writes them. All else in them is left out. */
import { Schema } from "effect"

/** Go leaves out what is empty, and writes null for some of it. */
const maybe = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))
const text = maybe(Schema.String)
const texts = maybe(Schema.Record(Schema.String, Schema.String))

const Owner = Schema.Struct({ kind: Schema.String, name: Schema.String, uid: Schema.String })

const Metadata = Schema.Struct({
  name: Schema.String,
  uid: Schema.String,
  resourceVersion: Schema.String,
  creationTimestamp: text,
  deletionTimestamp: text,
  labels: texts,
  annotations: texts,
  ownerReferences: maybe(Schema.Array(Owner))
})

const Condition = Schema.Struct({
  type: Schema.String,
  status: Schema.String,
  reason: text,
  message: text,
  lastTransitionTime: text
})
export type Condition = typeof Condition.Type

/** A batch/v1 Job. */
export const Job = Schema.Struct({
  metadata: Metadata,
  spec: maybe(Schema.Struct({ ttlSecondsAfterFinished: maybe(Schema.Int) })),
  status: maybe(Schema.Struct({
    startTime: text,
    completionTime: text,
    conditions: maybe(Schema.Array(Condition))
  }))
})
export type Job = typeof Job.Type

const Waiting = Schema.Struct({ reason: text, message: text })
const Running = Schema.Struct({ startedAt: text })
const Terminated = Schema.Struct({
  exitCode: Schema.Int,
  signal: maybe(Schema.Int),
  reason: text,
  message: text,
  startedAt: text,
  finishedAt: text
})
export type Terminated = typeof Terminated.Type

const ContainerStatus = Schema.Struct({
  name: Schema.String,
  state: maybe(Schema.Struct({ waiting: maybe(Waiting), running: maybe(Running), terminated: maybe(Terminated) }))
})
export type ContainerStatus = typeof ContainerStatus.Type

/** A v1 Pod. */
export const Pod = Schema.Struct({
  metadata: Metadata,
  spec: maybe(Schema.Struct({ nodeName: text })),
  status: maybe(Schema.Struct({
    phase: text,
    reason: text,
    message: text,
    conditions: maybe(Schema.Array(Condition)),
    containerStatuses: maybe(Schema.Array(ContainerStatus))
  }))
})
export type Pod = typeof Pod.Type

/** A page of a list. */
export const List = Schema.Struct({
  metadata: Schema.Struct({ resourceVersion: text, continue: text }),
  items: maybe(Schema.Array(Schema.Unknown))
})

/** How the API says what went wrong. */
export const Status = Schema.Struct({
  status: text,
  reason: text,
  message: text,
  code: maybe(Schema.Int)
})
export type Status = typeof Status.Type

/** One line of a watch. */
export const WatchEvent = Schema.Struct({ type: Schema.String, object: Schema.Unknown })

/** The version of whatever object it is: bookmarks have nothing else. */
export const Versioned = Schema.Struct({ metadata: Schema.Struct({ resourceVersion: Schema.String }) })

/** The answer to a SelfSubjectAccessReview. */
export const Review = Schema.Struct({
  status: Schema.Struct({ allowed: Schema.Boolean, reason: text, evaluationError: text })
})

/** The condition of that type, if it is true. */
export const trueCondition = (
  conditions: ReadonlyArray<Condition> | null | undefined,
  ...types: ReadonlyArray<string>
): Condition | undefined => conditions?.find(({ status, type }) => status === "True" && types.includes(type))

/** The Job that a pod belongs to. */
export const ownerOf = ({ metadata }: Pod): { readonly name: string; readonly uid: string } | undefined =>
  metadata.ownerReferences?.find(({ kind }) => kind === "Job")

/** What its container does now: pods of ours have one. */
export const stateOf = ({ status }: Pod) => status?.containerStatuses?.[0]?.state ?? undefined

/** A moment of the API in milliseconds since 1970. */
export const millisOf = (time: string | null | undefined): number | undefined => {
  const millis = time === null || time === undefined ? Number.NaN : Date.parse(time)
  return Number.isNaN(millis) ? undefined : millis
}
