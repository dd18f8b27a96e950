/**
 * How many times slower than a plain machine this one is: STOKER_TEST_SLOWNESS, 1 where it is absent, more where
 * processors are emulated (test/guestvm). For limits and for how long a test waits before it gives up.
 */
const factor = Number(process.env["STOKER_TEST_SLOWNESS"] ?? 1)

if (!(factor >= 1)) throw new Error("STOKER_TEST_SLOWNESS is a number from 1 on")

export const slowness = factor

/** So many milliseconds on a plain machine, as they have to be here. Whole. */
export const patience = (millis: number): number => Math.ceil(millis * factor)

/** The same for a limit that the test sets. */
export const slowly = patience
