import * as Place from "./places.ts"
import { queueSuite } from "./queueSuite.ts"
import { suite } from "./suite.ts"

suite("memory", Place.memory)
queueSuite("memory", Place.memory)
