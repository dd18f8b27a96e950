/** docs/attacks.md says of every attack what comes of it. STOKER_WRITE_DOCS=1 writes its tables anew. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Capability, Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { limitNeeds } from "../../src/schemas/Limits.ts"
import { layerDrivers } from "../../src/wiring.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { projectRoot } from "../support/Tree.ts"
import * as Machines from "./Machines.ts"
import { document, drivers, groups } from "./Table.ts"

const path = join(projectRoot, "docs", "attacks.md")
const [begin, end] = ["<!-- tables -->\n", "<!-- end of tables -->\n"]

it("docs/attacks.md has the tables of the suite", () => {
  const text = readFileSync(path, "utf8")
  const from = text.indexOf(begin) + begin.length
  const to = text.indexOf(end)
  if (process.env["STOKER_WRITE_DOCS"] !== undefined) {
    writeFileSync(path, `${text.slice(0, from)}\n${document()}${text.slice(to)}`)
  } else assert.strictEqual(text.slice(from, to), `\n${document()}`)
})

it("every attack has a name of its own, and every group runs", () => {
  const names = Object.values(groups).flat().map(({ name }) => name)
  assert.strictEqual(new Set(names).size, names.length)
  const tests = readdirSync(import.meta.dirname).map((name) => /^(\w+)\.test\.ts$/.exec(name)?.[1]?.toLowerCase())
  assert.includeMembers(tests, Object.keys(groups))
})

it("what is said of machines is tried by a test", () => {
  for (const { test: [file, title] } of Machines.attacks) {
    assert.include(readFileSync(join(projectRoot, "test", file), "utf8"), title)
  }
})

it.live("the drivers promise what the tables say", () => {
  const state = Jobs.stateDirectory()
  return Effect.gen(function*() {
    for (const driver of yield* Drivers) {
      // Which of the further limits are held is the host's to say, and no attack's.
      const further: ReadonlySet<Capability> = new Set(limitNeeds)
      const own = [...driver.capabilities].filter((capability) => !further.has(capability))
      assert.sameMembers(own, [...drivers[driver.name] ?? []], driver.name)
    }
  }).pipe(
    Effect.provide(layerDrivers(state, ["oci", "process"])),
    Effect.ensuring(Effect.sync(() => Jobs.remove(state)))
  )
})
