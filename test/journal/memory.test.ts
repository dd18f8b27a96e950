import * as Place from "./places.ts"
import { suite } from "./suite.ts"

suite("memory", Place.memory)
