/** The admin socket's name and routes, for both of its sides. */

/** In the instance's directory, for the worker's own user only. */
export const socketName = "admin.sock"

/** What may be asked over HTTP. The first three act on nothing and may also be served over TCP. */
export const routes = {
  live: "GET /livez",
  ready: "GET /readyz",
  metrics: "GET /metrics",
  status: "GET /status",
  jobs: "GET /jobs",
  drain: "POST /drain",
  reload: "POST /reload",
  stop: "POST /jobs/stop"
} as const
export type Route = (typeof routes)[keyof typeof routes]

/** Those that a network may ask. */
export const publicRoutes: ReadonlyArray<Route> = [routes.live, routes.ready, routes.metrics]
