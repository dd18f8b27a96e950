import * as Place from "./places.ts"
import { queueSuite } from "./queueSuite.ts"
import { suite } from "./suite.ts"

suite("sqlite", Place.sqlite)
queueSuite("sqlite", Place.sqlite)
