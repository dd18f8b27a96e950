/** A disk whose free space the test says, for deterministic tests. */
import { Effect, Layer } from "effect"
import { DiskSpace } from "./DiskSpace.ts"

export interface TestDisk {
  /** Bytes; the test may change it while it runs. */
  free: number
}

/** Without one there is always room. */
export const layerTest = (disk: TestDisk = { free: Number.MAX_SAFE_INTEGER }): Layer.Layer<DiskSpace> =>
  Layer.succeed(DiskSpace, { free: Effect.sync(() => disk.free) })
