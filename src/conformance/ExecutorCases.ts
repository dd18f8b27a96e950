/** The contract of `Executor`, case by case. */
import type { Executor } from "../layers/executor/Executor.ts"
import type { Case } from "./Case.ts"
import type { ConformanceHost } from "./ConformanceHost.ts"
import { artefacts } from "./executor/Artefacts.ts"
import { bytes } from "./executor/Bytes.ts"
import { events } from "./executor/Events.ts"
import { heldLimits } from "./executor/Held.ts"
import { outcomes } from "./executor/Outcomes.ts"
import { stops } from "./executor/Stops.ts"
import { told } from "./executor/Told.ts"

/** Any executor that Stoker uses passes those of them that its capabilities ask for (`casesFor`). */
export const executorCases: ReadonlyArray<Case<Executor | ConformanceHost>> = [
  ...outcomes,
  ...bytes,
  ...stops,
  ...events,
  ...artefacts,
  ...heldLimits,
  ...told
]
