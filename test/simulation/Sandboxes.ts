/** The host's sandboxes and the programs in them, which run under virtual time, whether or not their worker lives. */
import type { InstanceId, SandboxId } from "../../src/schemas/Ids.ts"
import type { Party, Time } from "./Time.ts"

/** The file that every run leaves in its sandbox. */
export const leftFile = "left"

/** What a job does, as its command line says it: `job <key> <millis> <end> <bytes>`. */
export interface Plan {
  readonly key: string
  readonly millis: number
  /** `exit-<code>`, `signal-<number>`, or `never`. */
  readonly end: string
  readonly bytes: number
}

export const commandOf = ({ bytes, end, key, millis }: Plan) => `job ${key} ${millis} ${end} ${bytes}`

export const planOf = (argv: ReadonlyArray<string>): Plan => {
  const [, key = "", millis = "1", end = "exit-0", bytes = "0"] = (argv.at(-1) ?? "").split(" ")
  return { key, millis: Number(millis), end, bytes: Number(bytes) }
}

export type ProgramEnd = { readonly code: number } | { readonly signal: number }

interface Running {
  readonly plan: Plan
  readonly end: (how: ProgramEnd) => void
  readonly cancel: () => void
}

interface Box {
  readonly id: SandboxId
  readonly instance: InstanceId
  readonly onLost: () => void
  isDead: boolean
  running: Running | undefined
}

export interface Capacity {
  readonly slots: number
  readonly sandboxes: number
}

export interface Runs {
  /** Programs begun. */
  readonly begun: number
  readonly firstAtMs: number
}

export const make = ({ outside, say, time, violate }: {
  readonly time: Time
  readonly outside: Party
  readonly say: (who: Party, what: string) => void
  readonly violate: (what: string) => void
}) => {
  const boxes = new Map<SandboxId, Box>()
  const capacities = new Map<InstanceId, Capacity>()
  const runs = new Map<string, Runs>()
  /** Its teardown failed: nobody counts it any more. */
  const left = new Set<SandboxId>()

  const of = (instance: InstanceId) => [...boxes.values()].filter((box) => box.instance === instance)

  const stop = (box: Box) => {
    box.running?.cancel()
    box.running = undefined
  }

  const kill = (id: SandboxId) => {
    const box = boxes.get(id)
    if (box === undefined || box.isDead) return
    box.isDead = true
    if (box.running !== undefined) say(outside, `${id} is killed, with ${box.running.plan.key} in it`)
    stop(box)
    box.onLost()
  }

  const checkCapacity = (instance: InstanceId) => {
    const { sandboxes, slots } = capacities.get(instance) ?? { sandboxes: 0, slots: 0 }
    const own = of(instance).filter(({ id }) => !left.has(id))
    const running = own.filter((box) => box.running !== undefined).length
    if (running > slots) violate(`${instance} runs ${running} jobs in ${slots} slots`)
    if (own.length > sandboxes) violate(`${instance} holds ${own.length} sandboxes of ${sandboxes}`)
  }

  return {
    setCapacity: (instance: InstanceId, capacity: Capacity) => void capacities.set(instance, capacity),
    create: (id: SandboxId, instance: InstanceId, onLost: () => void) => {
      boxes.set(id, { id, instance, onLost, isDead: false, running: undefined })
      checkCapacity(instance)
    },
    isThere: (id: SandboxId) => boxes.has(id),
    isLost: (id: SandboxId) => boxes.get(id)?.isDead ?? true,
    isRunning: (id: SandboxId) => boxes.get(id)?.running !== undefined,
    /** Begins a program; its end is told unless it is killed before. */
    begin: (id: SandboxId, plan: Plan, end: (how: ProgramEnd) => void) => {
      const box = boxes.get(id)
      if (box === undefined || box.isDead) return
      const other = [...boxes.values()].find(({ running }) => running?.plan.key === plan.key)
      if (other !== undefined) {
        violate(`${plan.key} runs in ${id} of ${box.instance} while it runs in ${other.id} of ${other.instance}`)
      }
      const before = runs.get(plan.key) ?? { begun: 0, firstAtMs: time.now() }
      runs.set(plan.key, { ...before, begun: before.begun + 1 })
      say(outside, `${plan.key} runs in ${id} of ${box.instance}`)
      const finish = (how: ProgramEnd) => {
        say(outside, `${plan.key} ends in ${id}: ${JSON.stringify(how)}`)
        stop(box)
        end(how)
      }
      const [kind, number] = plan.end.split("-")
      const cancel = kind === "never"
        ? () => {}
        : time.after(
          outside,
          plan.millis,
          () => finish(kind === "exit" ? { code: Number(number) } : { signal: Number(number) })
        )
      box.running = { plan, end: finish, cancel }
      checkCapacity(box.instance)
    },
    signal: (id: SandboxId, signal: number) => boxes.get(id)?.running?.end({ signal }),
    kill,
    killAll: (instance: InstanceId) => {
      for (const { id } of of(instance)) kill(id)
    },
    leave: (id: SandboxId) => void left.add(id),
    remove: (id: SandboxId) => {
      kill(id)
      boxes.delete(id)
    },
    there: () => [...boxes.keys()],
    runsOf: (key: string): Runs => runs.get(key) ?? { begun: 0, firstAtMs: Infinity }
  }
}

export type Sandboxes = ReturnType<typeof make>
