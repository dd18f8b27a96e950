/** Metrics as data: a definition says all there is to know of one, and its series are made from it. */
import { Metric } from "effect"

/** What the metrics page, the dashboard and the alert rules are checked against. */
export interface Definition {
  readonly name: string
  readonly type: "counter" | "gauge" | "histogram"
  readonly unit: string
  readonly labels: ReadonlyArray<string>
  readonly help: string
}

export type Labels<L extends string> = Readonly<Record<L, string>>

/** One metric. `series` gives the same object for the same labels, so that looking it up costs a map's get. */
export interface Instrument<L extends string, M> extends Definition {
  readonly labels: ReadonlyArray<L>
  readonly series: (labels: Labels<L>) => M
}

export type Counter<L extends string = never> = Instrument<L, Metric.Counter<number>>
export type Gauge<L extends string = never> = Instrument<L, Metric.Gauge<number>>
export type Histogram<L extends string = never> = Instrument<L, Metric.Histogram<number>>

/** What is asked of every definition but its type. */
export interface Options<L extends string> {
  readonly unit: string
  readonly labels?: ReadonlyArray<L>
  readonly help: string
}

/**
 * More series than this one metric never has, whatever its labels are given: the next ones are all called `other`. Labels
 * come from bounded sets anyway; this is for the set that was not.
 */
export const mostSeries = 500

const instrument = <L extends string, M>(
  type: Definition["type"],
  name: string,
  options: Options<L>,
  make: (attributes: Labels<L>) => M
): Instrument<L, M> => {
  const labels = options.labels ?? []
  const known = new Map<string, M>()
  const add = (key: string, attributes: Labels<L>): M => {
    const made = make(attributes)
    known.set(key, made)
    return made
  }
  const keyOf = (given: Labels<L>) => {
    let key = ""
    for (const label of labels) key += `${given[label]}\u0000`
    return key
  }
  const named = (value: (label: L) => string) =>
    Object.fromEntries(labels.map((label) => [label, value(label)])) as Labels<L>
  const overflow = named(() => "other")
  const series = (given: Labels<L>): M => {
    const key = keyOf(given)
    const found = known.get(key)
    if (found !== undefined) return found
    if (known.size < mostSeries) return add(key, named((label) => given[label]))
    const last = keyOf(overflow)
    return known.get(last) ?? add(last, overflow)
  }
  return {
    name,
    type,
    unit: options.unit,
    labels,
    help: options.help,
    series
  }
}

export const counter = <L extends string = never>(name: string, options: Options<L>): Counter<L> =>
  instrument(
    "counter",
    name,
    options,
    (attributes) => Metric.counter(name, { description: options.help, incremental: true, attributes })
  )

export const gauge = <L extends string = never>(name: string, options: Options<L>): Gauge<L> =>
  instrument("gauge", name, options, (attributes) => Metric.gauge(name, { description: options.help, attributes }))

/** Of seconds: upper bounds from a millisecond, which a warm sandbox takes, to an hour, which a long job takes. */
export const boundaries: ReadonlyArray<number> = [
  0.001,
  0.0025,
  0.005,
  0.01,
  0.025,
  0.05,
  0.1,
  0.25,
  0.5,
  1,
  2.5,
  5,
  10,
  30,
  60,
  300,
  900,
  3600
]

export const seconds = <L extends string = never>(name: string, options: Omit<Options<L>, "unit">): Histogram<L> =>
  instrument(
    "histogram",
    name,
    { ...options, unit: "seconds" },
    (attributes) => Metric.histogram(name, { description: options.help, boundaries, attributes })
  )
