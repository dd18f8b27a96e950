export const JOBS: number
export const CONCURRENCY: number
export const began: (n: number) => void
export const measure: (queue: {
  readonly add: (n: number) => Promise<unknown>
  readonly addMany: (all: ReadonlyArray<number>) => Promise<unknown>
  readonly start: () => Promise<() => Promise<unknown>>
}) => Promise<void>
