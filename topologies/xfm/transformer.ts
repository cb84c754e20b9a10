// XFM, second step. Reads documents in HL7v3 form and publishes the SQL that stores them: fixed statements and, apart
// from them, the values to be bound. No value ever becomes part of a statement.
import { decode, encode, map, topology } from "millrace";
import { errors, largestDocument, messaging } from "./brokers.ts";
import { readClinicalDocument } from "./clinical-document.ts";
import { statementsFor } from "./statements.ts";

export default topology("xfm-transformer", (t) => {
  t.from(messaging.source({ queue: "transform-rim", prefetch: 20 }))
    .pipe(
      decode("text", { maxBytes: largestDocument }),
      map((xml) => statementsFor(xml, readClinicalDocument(xml))),
      encode("json"),
    )
    .to(messaging.sink({ exchange: "load", key: "sql" }));

  t.deadLetters(errors);
});
