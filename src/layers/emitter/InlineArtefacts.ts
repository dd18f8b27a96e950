/** The files a job left as its last event carries them: the small ones with their contents. */
import { Effect } from "effect"
import type { StokerArtefact } from "../../schemas/dialects/StokerEvent.ts"
import type { JobKey } from "../../schemas/Ids.ts"
import type { Artefact } from "../../schemas/JobEvent.ts"
import type { Artefacts } from "../artefacts/Artefacts.ts"

const base64Bytes = (bytes: number) => 4 * Math.ceil(bytes / 3)

/** One after the other, whole or not at all, while their base64 fits into `room` bytes together. */
export const inlineArtefacts = Effect.fnUntraced(function*(
  artefacts: Artefacts["Service"],
  key: JobKey,
  files: ReadonlyArray<Artefact>,
  room: number
) {
  const told: Array<StokerArtefact> = []
  let left = room
  for (const file of files) {
    const needed = base64Bytes(file.bytes)
    if (needed > left) {
      told.push(file)
      continue
    }
    const content = yield* artefacts.read(key, file, { offset: 0, maxBytes: file.bytes }).pipe(
      Effect.map((bytes) => bytes.length === file.bytes ? Buffer.from(bytes).toString("base64") : undefined),
      // Told without it is better than not told: it lies on another host, or was kept long enough.
      Effect.catchTag("ArtefactNotFound", () => Effect.undefined),
      Effect.catchTag(
        "ArtefactError",
        (error) =>
          Effect.as(
            Effect.logWarning(`${file.path} of ${key.id} left out of its last event: ${error.message}`),
            undefined
          )
      )
    )
    told.push(content === undefined ? file : { ...file, content })
    if (content !== undefined) left -= needed
  }
  return told
})
