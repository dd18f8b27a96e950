import { afterAll } from "@effect/vitest"
import { Effect } from "effect"
import { layerTestClock, Postgres } from "../support/Postgres.ts"
import { queueSuite } from "./queueSuite.ts"
import { randomSteps } from "./sequences.ts"
import { type Place, suite } from "./suite.ts"

const postgres = new Postgres()
afterAll(() => postgres.dispose())

const place: Place = (options) =>
  Effect.map(postgres.options, (where) => layerTestClock(postgres, { ...where, ...options }, where.schema))

suite("postgres", place)
queueSuite("postgres", place)
randomSteps("postgres", place, 1, 60)
