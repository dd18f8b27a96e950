/** The tests' own object store as a process, for bench/objectstore.ts. */
import { StrictS3 } from "../test/objectstore/StrictS3.ts"

const server = await new StrictS3().start()
server.bucket("bench")
process.send?.({ accessKey: server.accessKey, secretKey: server.secretKey, endpoint: server.endpoint })
process.on("disconnect", () => process.exit(0))
