import { conformance } from "./conformance.suite.js";

conformance("cluster-2-redis");
