/** A strict reader of the Prometheus text format 0.0.4: whatever a scraper could stumble over is an error here. */

export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Family {
  readonly name: string
  readonly type: string
  readonly help: string
  readonly samples: Array<Sample>
}

const unescape = (text: string) =>
  text.replaceAll(/\\(.)/gs, (_, char: string) => {
    if (char === "n") return "\n"
    if (char === "\\" || char === "\"") return char
    throw new Error(`\\${char} is no escape`)
  })

const labelsOf = (text: string): Record<string, string> => {
  const labels: Record<string, string> = {}
  const pattern = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\.)*)"(,|$)/y
  while (pattern.lastIndex < text.length) {
    const at = pattern.lastIndex
    const [whole, name, value] = pattern.exec(text) ?? []
    if (whole === undefined || name === undefined || value === undefined) {
      throw new Error(`bad labels at ${at}: ${text}`)
    }
    if (name in labels) throw new Error(`label ${name} twice: ${text}`)
    labels[name] = unescape(value)
  }
  return labels
}

const numberOf = (text: string): number => {
  if (text === "+Inf") return Infinity
  if (text === "-Inf") return -Infinity
  if (!/^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?$|^NaN$/i.test(text)) throw new Error(`${text} is no number`)
  return Number(text)
}

const without = (labels: Readonly<Record<string, string>>) =>
  JSON.stringify(Object.entries(labels).filter(([name]) => name !== "le").toSorted())

/** Buckets rise, end with +Inf, and agree with the count; each series has a sum. */
const checkHistogram = ({ name, samples }: Family) => {
  const of = (suffix: string) => samples.filter((sample) => sample.name === `${name}${suffix}`)
  const groups = Map.groupBy(of("_bucket"), ({ labels }) => without(labels))
  for (const [key, buckets] of groups) {
    let last = { le: -Infinity, value: 0 }
    for (const { labels, value } of buckets) {
      const le = numberOf(labels["le"] ?? "")
      if (le <= last.le || value < last.value) throw new Error(`${name} ${key}: buckets do not rise at ${le}`)
      last = { le, value }
    }
    const count = of("_count").find(({ labels }) => without(labels) === key)
    const sum = of("_sum").find(({ labels }) => without(labels) === key)
    if (last.le !== Infinity || count?.value !== last.value || sum === undefined) {
      throw new Error(`${name} ${key}: +Inf, count and sum do not agree`)
    }
  }
  if (of("_count").length !== groups.size) throw new Error(`${name}: counts without buckets`)
}

/** Throws with the line that is wrong. */
export const parse = (text: string): ReadonlyMap<string, Family> => {
  if (!text.endsWith("\n")) throw new Error("the last line does not end")
  const families = new Map<string, Family>()
  const series = new Set<string>()
  let help: { readonly name: string; readonly text: string } | undefined
  let current: Family | undefined
  for (const line of text.slice(0, -1).split("\n")) {
    const [, helped, words] = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line) ?? []
    const [, typed, type] =
      /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary|untyped)$/.exec(line) ?? []
    if (helped !== undefined && words !== undefined) {
      help = { name: helped, text: words.replaceAll("\\n", "\n").replaceAll("\\\\", "\\") }
    } else if (typed !== undefined && type !== undefined) {
      if (families.has(typed)) throw new Error(`${typed} begins twice`)
      if (help?.name !== typed) throw new Error(`${typed} has no HELP before its TYPE`)
      current = { name: typed, type, help: help.text, samples: [] }
      families.set(typed, current)
    } else {
      const [, name, labels = "", value] = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
      if (name === undefined || value === undefined || current === undefined) throw new Error(`not a sample: ${line}`)
      const base = current.type === "histogram" ? name.replace(/_(?:bucket|sum|count)$/, "") : name
      if (base !== current.name) throw new Error(`${name} stands below ${current.name}`)
      const sample: Sample = { name, labels: labelsOf(labels), value: numberOf(value) }
      const key = `${name} ${JSON.stringify(Object.entries(sample.labels).toSorted())}`
      if (series.has(key)) throw new Error(`twice: ${line}`)
      series.add(key)
      current.samples.push(sample)
    }
  }
  for (const family of families.values()) if (family.type === "histogram") checkHistogram(family)
  return families
}

/** The sum of all samples of that name whose labels are these, and others. */
export const valueOf = (
  families: ReadonlyMap<string, Family>,
  name: string,
  labels: Readonly<Record<string, string>> = {}
): number => {
  const family = families.get(name) ?? families.get(name.replace(/_(?:bucket|sum|count)$/, ""))
  const matching = (family?.samples ?? []).filter((sample) =>
    sample.name === name && Object.entries(labels).every(([label, value]) => sample.labels[label] === value)
  )
  return matching.reduce((sum, { value }) => sum + value, 0)
}
