/**
 * How much slower than the machines the bounds were written on this one is: STOKER_TEST_SLOWNESS, a number, 1 where it is
 * absent. In an emulated guest everything takes ten times as long, and limits of time have to be as much longer.
 */
const factor = Number(process.env["STOKER_TEST_SLOWNESS"] ?? 1)

if (!(factor >= 1)) throw new Error("STOKER_TEST_SLOWNESS is a number from 1 on")

export const slowness = factor

/** A span of time as it has to be here. Milliseconds in, whole milliseconds out. */
export const slowly = (millis: number): number => Math.ceil(millis * factor)
