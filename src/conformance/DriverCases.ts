/** The contract of `Driver`, case by case. */
import type { Case } from "./Case.ts"
import type { ConformanceDriver, ConformanceHost } from "./ConformanceHost.ts"
import { contract } from "./driver/Contract.ts"
import { isolation } from "./driver/Isolation.ts"
import { teardown } from "./driver/Teardown.ts"

/** Any driver passes those of them that its capabilities ask for (`casesFor`). */
export const driverCases: ReadonlyArray<Case<ConformanceDriver | ConformanceHost>> = [
  ...contract,
  ...isolation,
  ...teardown
]
