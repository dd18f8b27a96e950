/** Whole numbers and times between JavaScript and protobuf. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { type Timestamp, timestampFromMs, timestampMs, type TimestampSchema } from "@bufbuild/protobuf/wkt"

/** 64 bits of a count that is a natural number here. */
export const wide = (value: number): bigint => BigInt(value)

/** As `wide`, of what may be absent. */
export const wideIf = (value: number | undefined): bigint | undefined => value === undefined ? undefined : BigInt(value)

/** Beyond 2^53 it is not exact; nothing of ours is as large, and its Schema refuses it where that matters. */
export const narrow = (value: bigint): number => Number(value)

/** Milliseconds since 1970. */
export const timeIf = (ms: number | undefined): MessageInitShape<typeof TimestampSchema> | undefined =>
  ms === undefined ? undefined : timestampFromMs(ms)

/** Milliseconds since 1970. */
export const msIf = (time: Timestamp | undefined): number | undefined =>
  time === undefined ? undefined : timestampMs(time)

/** proto3 has no absent text: an empty one is. */
export const textIf = (text: string): string | undefined => text === "" ? undefined : text

/** Without the fields that are undefined: what an optional key of ours means by absent. */
export const present = <A extends object>(fields: A): { [K in keyof A]?: Exclude<A[K], undefined> } =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof A]?: Exclude<A[K], undefined>
  }
