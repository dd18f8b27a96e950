import { afterAll } from "@effect/vitest"
import { Effect } from "effect"
import { layerTestClock, Postgres } from "../support/Postgres.ts"
import { suite } from "./suite.ts"

const postgres = new Postgres()
afterAll(() => postgres.dispose())

suite(
  "postgres",
  (options) => Effect.map(postgres.options, (place) => layerTestClock(postgres, { ...place, ...options }, place.schema))
)
