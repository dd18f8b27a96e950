/**
 * The life of one machine, as data: which state follows which, and how long each is waited for. All that happens to a machine
 * goes through `next`, so that no state can be left out or entered twice. What takes it back is the same from any state and
 * follows from the row alone (`HostSandbox`'s clearing): it is known before the first thing is made, run by the worker's own
 * finalizers, by the janitor for a dead worker's row, and does nothing where there is nothing.
 */
import type { Deadlines } from "../../microvm/Vmm.ts"

/** In the order of a life. A machine may go to `stopping` from any of them, and comes to `gone` from nowhere else. */
export const states = ["reserving", "network", "booting", "ready", "leased", "stopping", "gone"] as const
export type State = (typeof states)[number]

/** What happened. */
export type Event =
  /** Its row and its cgroup are there. */
  | "reserved"
  /** So are its namespace with the tap, and its disk. */
  | "connected"
  /** Its guest is the one that was started, has been told who it is, and is confined as it should be. */
  | "confirmed"
  /** It was given a program. */
  | "taken"
  /** Nobody wants it any more, or it failed: from any state. */
  | "stop"
  /** Nothing of it is left. */
  | "cleared"

const steps: Readonly<Record<State, Partial<Record<Event, State>>>> = {
  reserving: { reserved: "network", stop: "stopping" },
  network: { connected: "booting", stop: "stopping" },
  booting: { confirmed: "ready", stop: "stopping" },
  ready: { taken: "leased", stop: "stopping" },
  leased: { stop: "stopping" },
  stopping: { cleared: "gone" },
  gone: {}
}

/** The state after it; undefined for what cannot happen in this one. */
export const next = (state: State, event: Event): State | undefined => steps[state][event]

/** States in which somebody works on the machine. In the others it waits for somebody, as long as that takes. */
export type Working = "reserving" | "network" | "booting" | "stopping"

/** What a machine may take in one state at most, in milliseconds. */
export const deadlineMs = (state: Working, deadlines: Deadlines, isRestored: boolean): number => {
  switch (state) {
    case "reserving":
      return 5000
    case "network":
      return 30_000
    case "booting":
      return (isRestored ? deadlines.restoreMs : deadlines.bootMs) + deadlines.personaliseMs
    case "stopping":
      return 15_000
  }
}

/** What one machine has come to, and for how long it was in each state. Times are milliseconds of a monotonic clock. */
export interface Life {
  readonly state: State
  readonly sinceMs: number
}

export const begin = (nowMs: number): Life => ({ state: "reserving", sinceMs: nowMs })

/** After the event; with how long the state before it lasted. Undefined: it changes nothing. */
export const advance = (
  life: Life,
  event: Event,
  nowMs: number
): { readonly life: Life; readonly left: State; readonly lastedMs: number } | undefined => {
  const state = next(life.state, event)
  return state === undefined
    ? undefined
    : { life: { state, sinceMs: nowMs }, left: life.state, lastedMs: nowMs - life.sinceMs }
}
