/** What operators copy: the page of metrics, the dashboard and the alert rules know what the worker knows, no more. */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Yaml } from "effect/encoding"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { counter, mostSeries } from "../../src/layers/telemetry/Instrument.ts"
import { definitions } from "../../src/layers/telemetry/Metrics.ts"
import { projectEnv } from "../support/Run.ts"
import { projectRoot } from "../support/Tree.ts"
import { checkedFile, isThere, promtool } from "./Promtool.ts"

const infra = (...path: ReadonlyArray<string>) => join(projectRoot, "infra", ...path)

const Rules = Schema.Struct({
  groups: Schema.Array(Schema.Struct({
    name: Schema.String,
    rules: Schema.Array(Schema.Struct({
      alert: Schema.String,
      expr: Schema.NonEmptyString,
      for: Schema.optionalKey(Schema.String),
      labels: Schema.Struct({ severity: Schema.Literals(["page", "ticket"]) }),
      annotations: Schema.Struct({ summary: Schema.NonEmptyString, action: Schema.NonEmptyString })
    }))
  }))
})
const Target = Schema.Struct({ expr: Schema.NonEmptyString })
const Dashboard = Schema.Struct({
  uid: Schema.String,
  templating: Schema.Struct({
    list: Schema.Array(Schema.Struct({ name: Schema.String, definition: Schema.optionalKey(Schema.String) }))
  }),
  annotations: Schema.Struct({ list: Schema.Array(Schema.Struct({ expr: Schema.optionalKey(Schema.String) })) }),
  panels: Schema.Array(Schema.Struct({
    id: Schema.Natural,
    type: Schema.String,
    title: Schema.NonEmptyString,
    description: Schema.optionalKey(Schema.NonEmptyString),
    targets: Schema.optionalKey(Schema.Array(Target))
  }))
})

const rules = Schema.decodeUnknownSync(Rules)(
  Yaml.parse(readFileSync(infra("prometheus", "alerts.yml"), "utf8"))
).groups.flatMap(({ rules }) => rules)
const dashboard = Schema.decodeUnknownSync(Schema.fromJsonString(Dashboard))(
  readFileSync(infra("grafana", "stoker.json"), "utf8")
)
const queries = [
  ...dashboard.panels.flatMap(({ targets = [], title }) => targets.map(({ expr }) => ({ where: title, expr }))),
  ...dashboard.annotations.list.flatMap(({ expr }) => expr === undefined ? [] : [{ where: "annotation", expr }]),
  ...dashboard.templating.list.flatMap(({ definition, name }) =>
    definition === undefined ? [] : [{ where: `variable ${name}`, expr: definition }]
  )
]
const byName = new Map(definitions.map((definition) => [definition.name, definition]))

/** What Prometheus adds. */
const always = new Set(["instance", "job", "le", "alertname"])

/** Everything a query asks for that no worker has. */
const unknownIn = (expr: string): ReadonlyArray<string> => {
  const problems: Array<string> = []
  const used = Array.from(expr.matchAll(/\b(stoker_[a-z0-9_]+)(?:\{([^}]*)\})?/g), ([, name = "", selector = ""]) => {
    const base = byName.get(name) ?? byName.get(name.replace(/_(?:bucket|sum|count)$/, ""))
    if (base === undefined || (base.type === "histogram") === byName.has(name)) problems.push(name)
    for (const [, label = ""] of selector.matchAll(/([a-z_]+)\s*(?:=|!)/g)) {
      if (base?.labels.includes(label) === false && !always.has(label)) problems.push(`${name}{${label}}`)
    }
    return base
  })
  for (const [, labels = ""] of expr.matchAll(/\b(?:by|on)\s*\(([^)]*)\)/g)) {
    for (const label of labels.split(",").map((text) => text.trim()).filter((text) => text !== "")) {
      const has = always.has(label) || used.some((definition) => definition?.labels.includes(label) === true)
      if (!has) problems.push(`by (${label})`)
    }
  }
  return problems
}

describe("the list of metrics", () => {
  it("keeps Prometheus' rules for names, and says what each one means", () => {
    assert.strictEqual(byName.size, definitions.length)
    for (const { help, labels, name, type, unit } of definitions) {
      assert.match(name, /^stoker_[a-z0-9]+(?:_[a-z0-9]+)*$/)
      assert.strictEqual(name.endsWith("_total"), type === "counter", name)
      if (unit === "seconds" || unit === "bytes") assert.match(name, new RegExp(`_${unit}(?:_total)?$`), name)
      if (type === "histogram") assert.match(name, /_seconds$/)
      assert.isAbove(help.length, 10, name)
      for (const label of labels) assert.notInclude(["id", "owner", "job", "key", "le", "instance"], label, name)
    }
  })

  it("is what the page shows (else: scripts/metrics.mjs > infra/METRICS.md)", () => {
    const page = execFileSync("node", [join(projectRoot, "scripts", "metrics.mjs")], {
      env: projectEnv,
      encoding: "utf8"
    })
    assert.strictEqual(readFileSync(infra("METRICS.md"), "utf8"), page)
  })

  it("has no metric with more series than it may have, whatever its labels are given", () => {
    const { series } = counter("stoker_test_total", { unit: "things", labels: ["kind"], help: "of this test" })
    const made = new Set(Array.from({ length: 3 * mostSeries }, (_, n) => series({ kind: `kind-${n}` })))
    assert.strictEqual(made.size, mostSeries + 1)
    assert.deepStrictEqual(series({ kind: "yet another" }).attributes, { kind: "other" })
    assert.deepStrictEqual(series({ kind: "kind-1" }).attributes, { kind: "kind-1" })
  })
})

describe("the dashboard", () => {
  it("asks only for metrics and labels that exist", () => {
    assert.isAbove(queries.length, 50)
    assert.deepStrictEqual(queries.flatMap(({ expr, where }) => unknownIn(expr).map((what) => `${where}: ${what}`)), [])
    assert.deepStrictEqual(unknownIn("sum by (color) (rate(stoker_nothing_total{a=\"b\"}[5m]))"), [
      "stoker_nothing_total",
      "by (color)"
    ])
    assert.deepStrictEqual(unknownIn("stoker_jobs_total{color=\"red\"} + stoker_job_seconds"), [
      "stoker_jobs_total{color}",
      "stoker_job_seconds"
    ])
  })

  it("shows every metric somewhere, and each panel says how to read it", () => {
    const shown = queries.map(({ expr }) => expr).join("\n")
    const missing = definitions.filter(({ name }) => !new RegExp(`\\b${name}(?:_bucket|_count)?\\b`).test(shown))
    assert.deepStrictEqual(missing.map(({ name }) => name), [])
    const panels = dashboard.panels.filter(({ type }) => type !== "row")
    assert.deepStrictEqual(panels.filter(({ description }) => description === undefined), [])
    assert.strictEqual(new Set(dashboard.panels.map(({ id }) => id)).size, dashboard.panels.length)
  })
})

describe("the alert rules", () => {
  it("ask only for metrics and labels that exist, and say what to do", () => {
    assert.isAtLeast(rules.length, 15)
    assert.deepStrictEqual(rules.flatMap(({ alert, expr }) => unknownIn(expr).map((what) => `${alert}: ${what}`)), [])
    for (const { alert, annotations: { action, summary } } of rules) {
      assert.match(alert, /^Stoker[A-Z]/)
      assert.isBelow(summary.length, 120, alert)
      assert.isAbove(action.length, 60, alert)
    }
  })

  it.skipIf(!isThere)(
    `are PromQL, ring when they should and not else (${isThere ? "promtool" : "no promtool here"})`,
    () => {
      const checked = promtool(["check", "rules", infra("prometheus", "alerts.yml")])
      assert.strictEqual(checked.code, 0, checked.said)
      const tested = promtool(["test", "rules", infra("prometheus", "alerts.test.yml")])
      assert.strictEqual(tested.code, 0, tested.said)
    }
  )

  it.skipIf(!isThere)(`and the dashboard's queries are PromQL (${isThere ? "promtool" : "no promtool here"})`, () => {
    const exprs = queries.filter(({ where }) => !where.startsWith("variable")).map(({ expr }) =>
      expr.replaceAll("$__rate_interval", "5m").replaceAll(/\$(?:instance|class)\b/g, ".*")
    )
    const file = JSON.stringify({
      groups: [{ name: "dashboard", rules: exprs.map((expr, n) => ({ record: `query:${n}`, expr })) }]
    })
    const checked = checkedFile(file)
    assert.strictEqual(checked.code, 0, checked.said)
  })
})
