import * as Place from "./places.ts"
import { queueSuite } from "./queueSuite.ts"
import { randomSteps } from "./sequences.ts"
import { suite } from "./suite.ts"

suite("sqlite", Place.sqlite)
queueSuite("sqlite", Place.sqlite)
randomSteps("sqlite", Place.sqlite, 12)
