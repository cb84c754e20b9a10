import { MillraceError } from "./errors.ts";
import { topologyWith } from "./topology/topology.ts";

export { env } from "./component/environment.ts";
export { secret } from "./component/secret.ts";
export { kafka } from "./connectors/kafka/index.ts";
export { decode } from "./operators/decode.ts";
export { dedup } from "./operators/dedup.ts";
export { encode } from "./operators/encode.ts";
export { merge } from "./topology/stream.ts";

export const topology = topologyWith({
  route: () => {
    throw new MillraceError("internal", "route");
  },
});
