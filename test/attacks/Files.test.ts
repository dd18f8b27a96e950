import { suite } from "./Attack.ts"
import { attacks } from "./Files.ts"

for (const driver of ["oci", "process"]) suite("files", attacks, driver)
