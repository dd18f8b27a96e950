/** No control groups: for workers that start nothing on their host, and so need no rights on it. */
import { Effect, Layer, Option } from "effect"
import { type Cgroup, CgroupError, type CgroupInstance, Cgroups } from "./Cgroup.ts"

const refused = (operation: string, path: string) =>
  Effect.fail(
    new CgroupError({
      operation,
      path,
      reason: "this worker has no control groups: all its classes are clusters",
      remedy: "Start a worker with a class of another driver, which sees to them."
    })
  )

const noGroup = (name: string): Cgroup => ({
  path: name,
  procsFiles: [],
  limit: () => refused("limit", name),
  usage: refused("usage", name),
  now: refused("now", name),
  cpu: refused("cpu", name),
  memory: refused("memory", name),
  pressure: refused("pressure", name),
  resetPeak: Effect.succeed(false),
  pids: Effect.succeed([]),
  kill: Effect.void,
  freeze: refused("freeze", name),
  thaw: refused("thaw", name),
  isEmpty: refused("isEmpty", name),
  awaitEmpty: () => refused("awaitEmpty", name),
  dissolve: refused("dissolve", name),
  remove: Effect.void
})

/** Another worker's groups, if it had any, are not ours to call gone. */
const ofInstance = (instance: string, recorded: ReadonlyArray<string> = []): CgroupInstance => ({
  directories: recorded,
  leaves: recorded.length === 0 ? Effect.succeed([]) : refused("leaves", instance),
  open: noGroup,
  remove: recorded.length === 0 ? Effect.void : refused("remove", instance)
})

export const layer: Layer.Layer<Cgroups> = Layer.succeed(
  Cgroups,
  Cgroups.of({
    version: "v2",
    hybridMount: Option.none(),
    holds: new Set(),
    lacks: () => ({ reason: "this worker has no control groups", remedy: "Use a class of another driver." }),
    make: (name) => refused("make", name),
    open: noGroup,
    directories: [],
    removeInstance: Effect.void,
    instances: Effect.succeed([]),
    forInstance: ofInstance
  })
)
