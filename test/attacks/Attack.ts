/**
 * Programs that try to escape or to do harm, each run as a real job of a real driver. Three things are asked of each: what
 * the program saw, what the worker said of it, and that host and neighbour are as they were: a neighbour works beside it,
 * another job runs after it, and nothing of it is left.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { createServer, type ListenOptions, type Server } from "node:net"
import { afterAll, beforeAll } from "vitest"
import { type Capability, Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { type LimitsRequest, standardCeiling } from "../../src/schemas/Limits.ts"
import type { DriverName } from "../../src/schemas/SandboxClass.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { slowly } from "../support/Slowness.ts"
import * as HostState from "./HostState.ts"
import { prepare, sourceOf } from "./Programs.ts"

/** A file of `programs/` and its arguments. */
export interface Call {
  readonly program: string
  readonly args?: ReadonlyArray<string>
  readonly limits?: LimitsRequest
}

export interface Attack extends Call {
  /** What is tried. A line of docs/attacks.md begins with it, so it is short and there is only one of it. */
  readonly name: string
  /** What stops it, for docs/attacks.md; or what of it is not stopped. */
  readonly heldBy: string
  /** Absent: "held", all of it. Its test then pins what is not, so that the document stays true. */
  readonly result?: "partly held" | "NOT held"
  /** Without these of its driver nobody is promised anything: then it is not run. */
  readonly needs: ReadonlyArray<Capability>
  readonly artefacts?: ReadonlyArray<string>
  /** Processes its class allows, if that is more than usual. */
  readonly pidsCeiling?: number
  /** Compiled by its own job from this source of `programs/`, instead of being brought along. */
  readonly source?: string
  /** Somebody stops it once it has said this. Milliseconds of this machine. */
  readonly stop?: { readonly on: string; readonly graceMs: number }
  /** Another job's program, at the same time: who shares something with it, or must not. */
  readonly beside?: Call
  /** The neighbour's work takes at most so many times what it takes alone, and two seconds; absent: 15 times. */
  readonly slowdown?: number
  readonly expect: (seen: Seen) => void
}

/** What came of it. */
export interface Seen {
  readonly outcome: Jobs.Ran["outcome"]
  readonly usage: Jobs.Ran["usage"]["phases"][number]
  readonly phases: Jobs.Ran["usage"]["phases"]
  readonly stdout: string
  readonly stderr: string
  /** Of stdout, without an empty last one. */
  readonly lines: ReadonlyArray<string>
  /** What "name: …" said. */
  readonly said: (name: string) => string | undefined
  readonly artefacts: Jobs.Ran["artefacts"]
  /** From the start of its run to its end, in milliseconds. */
  readonly tookMs: number
  /** From the stop to its end, in milliseconds; absent: nobody stopped it. */
  readonly stoppedMs: number | undefined
  readonly beside: Seen | undefined
  readonly driver: DriverName
}

/** Where the host listens while attacks run; nobody ever connects. In arguments: {port}, {socket}, {pid}. */
interface Doors {
  readonly port: number
  readonly socket: string
  knocks: number
}
const doors: Doors = { port: 0, socket: `stoker-test-${process.pid}`, knocks: 0 }
const listeners: Array<Server> = []
const listen = async (options: ListenOptions) => {
  const server = createServer((connection) => {
    doors.knocks++
    connection.destroy()
  })
  listeners.push(server)
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(options, resolve))
  return server.address()
}
const fillIn = (text: string) =>
  text.replace("{port}", String(doors.port)).replace("{socket}", doors.socket).replace("{pid}", String(process.pid))

/** Limits of an attack that says nothing: time enough for all of them, and everything else as by default. */
const patienceMs = Math.min(slowly(7000), standardCeiling.wallMs, standardCeiling.cpuMs)
const patience: LimitsRequest = { wallMs: patienceMs, cpuMs: patienceMs }

const seen = (driver: DriverName, ran: Jobs.Ran, began: number, asked: number | undefined, beside?: Seen): Seen => {
  const stdout = ran.stdout.toString("latin1")
  const lines = stdout.split("\n").filter((line, index, all) => line !== "" || index < all.length - 1)
  const now = performance.now()
  return {
    outcome: ran.outcome,
    usage: ran.usage.phases.at(-1) ?? { phase: "run", wallMicros: 0 },
    phases: ran.usage.phases,
    stdout,
    stderr: ran.stderr.toString("latin1"),
    lines,
    said: (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2),
    artefacts: ran.artefacts,
    tookMs: now - began,
    stoppedMs: asked === undefined ? undefined : now - asked,
    beside,
    driver
  }
}

const call = (driver: DriverName, { args = [], limits, program }: Call) =>
  Effect.gen(function*() {
    const began = performance.now()
    const ran = yield* Jobs.run(driver, {
      args: prepare(program, args.map(fillIn)),
      limits: { ...patience, ...limits }
    })
    return seen(driver, ran, began, undefined)
  })

const attack = (driver: DriverName, wanted: Attack) =>
  Effect.gen(function*() {
    const { artefacts = [], beside, limits, pidsCeiling, source, stop } = wanted
    const began = performance.now()
    let asked: number | undefined
    let heard = ""
    const what = source === undefined
      ? { args: prepare(wanted.program, (wanted.args ?? []).map(fillIn)) }
      : { function: "code" as const, args: { language: "c", source: sourceOf(source) } }
    const ran = Jobs.run(driver, {
      ...what,
      artefacts,
      limits: { ...patience, ...limits },
      ceiling: { ...standardCeiling, pids: Math.max(standardCeiling.pids, pidsCeiling ?? 0) },
      ...(stop === undefined ? {} : {
        graceMs: stop.graceMs,
        onOutput: (text, end) =>
          Effect.suspend(() => {
            heard = (heard + text).slice(-1000)
            if (asked !== undefined || !heard.includes(stop.on)) return Effect.void
            asked = performance.now()
            return end
          })
      })
    })
    const both = yield* Effect.all([
      Effect.map(ran, (one) => (other: Seen | undefined) => seen(driver, one, began, asked, other)),
      beside === undefined ? Effect.undefined : call(driver, beside)
    ], { concurrency: 2 })
    return both[0](both[1])
  })

const neighbour: Call = { program: "neighbour.c" }

/** All attacks of one group on one driver. */
export const suite = (group: string, attacks: ReadonlyArray<Attack>, driver: DriverName) => {
  const state = Jobs.stateDirectory()

  describe(`${group} on ${driver}`, () => {
    beforeAll(async () => {
      const address = await listen({ host: "127.0.0.1", port: 0 })
      if (address !== null && typeof address === "object") Object.assign(doors, { port: address.port })
      await listen({ path: `\0${doors.socket}` })
    })
    afterAll(() => {
      for (const server of listeners.splice(0)) server.close()
      Jobs.remove(state)
    })

    layer(Jobs.layer(driver, state), { excludeTestServices: true, timeout: slowly(60_000) })(
      "in one executor",
      (it) => {
        const own = Effect.flatMap(
          Drivers,
          (drivers) => Effect.fromNullishOr(drivers.find(({ name }) => name === driver)).pipe(Effect.orDie)
        )
        let alone: Seen | undefined
        let before: HostState.HostState | undefined

        /** Once for all: what the neighbour takes when it is alone, and what the host is like. */
        const calm = Effect.gen(function*() {
          if (alone === undefined) {
            const first = yield* call(driver, neighbour)
            assert.deepStrictEqual(first.outcome, { _tag: "Exited", phase: "run", code: 0 }, `alone: ${first.stdout}`)
            alone = first
          }
          before ??= HostState.look(state)
          return { alone, before }
        })

        const unharmed = Effect.fnUntraced(function*(name: string) {
          const { before } = yield* calm
          assert.strictEqual(doors.knocks, 0, `${name} reached the host's sockets`)
          const after = yield* call(driver, { program: "neighbour.c", args: ["quick"] })
          assert.deepStrictEqual(after.outcome, { _tag: "Exited", phase: "run", code: 0 }, `a job after ${name}`)
          assert.strictEqual(after.stdout, "well\n", `a job after ${name}`)
          // What a job leaves the kernel removes within moments, and our own release of its sandbox runs beside its end.
          const end = performance.now() + slowly(10_000)
          while (performance.now() < end && !HostState.isAs(HostState.look(state), before)) yield* Effect.sleep(10)
          assert.deepStrictEqual(HostState.look(state), before, `the host after ${name}`)
        })

        for (const one of attacks) {
          it.effect(one.name, () =>
            Effect.gen(function*() {
              const { capabilities } = yield* own
              const lacking = one.needs.filter((need) => !capabilities.has(need))
              if (lacking.length > 0) {
                // Who cannot hold it must say so, and so that an operator hears of it.
                const warnings = (yield* (yield* own).check).filter(({ status }) => status !== "ok")
                assert.isNotEmpty(warnings, `${driver} lacks ${lacking.join(", ")} and says nothing`)
                return
              }
              const { alone } = yield* calm
              const [came, beside] = yield* Effect.all([attack(driver, one), call(driver, neighbour)], {
                concurrency: 2
              })
              const about = JSON.stringify({
                outcome: came.outcome,
                usage: came.usage,
                stdout: came.stdout.slice(0, 2000),
                stderr: came.stderr.slice(0, 500),
                beside: came.beside === undefined ? undefined : [came.beside.outcome, came.beside.stdout.slice(0, 1000)]
              })
              if (process.env["STOKER_ATTACKS_SHOW"] !== undefined) process.stderr.write(`${one.name}: ${about}\n`)
              assert.notStrictEqual(came.outcome._tag, "SandboxFailed", about)
              try {
                one.expect(came)
              } catch (error) {
                throw new Error(`${String(error)}\n${about}`, { cause: error })
              }
              assert.deepStrictEqual(beside.outcome, { _tag: "Exited", phase: "run", code: 0 }, "the neighbour")
              assert.strictEqual(beside.stdout, alone.stdout, "the neighbour's result")
              const bound = (one.slowdown ?? 15) * alone.tookMs + slowly(2000)
              assert.isBelow(beside.tookMs, bound, `the neighbour took ${alone.tookMs} ms alone`)
              yield* unharmed(one.name)
            }), { timeout: slowly(60_000) })
        }
      }
    )
  })
}
