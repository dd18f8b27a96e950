/**
 * How many times slower than a plain machine this one is: 1, or more where processors are emulated (test/guestvm).
 * For how long a test waits before it gives up, never for what it asserts.
 */
export const slowness = Number(process.env["STOKER_TEST_SLOWNESS"] ?? "1")

/** So many milliseconds on a plain machine. */
export const patience = (millis: number): number => millis * slowness
