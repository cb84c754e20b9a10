// XFM, first step. Takes source messages from the gateway and publishes them to the messaging broker in HL7v3 form:
// CDA documents are that already and pass as they are; FHIR bundles are translated.
//
// The gate is the flow control between the two brokers: while a queue of the workers is deep nothing is taken in. It
// is a soft limit. Depths are looked at once a second, so a queue can hold `closeAt`, and what one second brings, and
// the prefetch of each ingester.
import { decode, encode, env, map, topology, validate } from "millrace";
import { errors, gateway, largestDocument, messaging } from "./brokers.ts";
import { fhirBundle } from "./fhir-bundle.schema.ts";
import { toHl7v3 } from "./hl7v3.ts";

const gate = {
  on: messaging,
  queues: ["transform-rim", "load-sql"],
  closeAt: Number(env("XFM_CLOSE_AT", "1000")),
  every: env("XFM_LOOK_EVERY", "1s"),
};

export default topology("xfm-ingester", (t) => {
  const transform = messaging.sink({
    exchange: "transform",
    key: "hl7v3",
    maxMessageBytes: largestDocument,
  });

  t.from(gateway.source({ queue: "ingress-cdar2", prefetch: 50, gate })).to(transform);

  t.from(gateway.source({ queue: "ingress-fhir", prefetch: 50, gate }))
    .pipe(
      decode("json", { maxBytes: largestDocument }),
      validate(fhirBundle),
      map((bundle) => toHl7v3(bundle)),
      encode("text"),
    )
    .to(transform);

  t.deadLetters(errors);
});
