import { MillraceError } from "millrace";

/** FHIR names a code system by a URI, HL7v3 by an object identifier: those that may be used here. */
const oids = new Map([
  ["http://loinc.org", "2.16.840.1.113883.6.1"],
  ["http://snomed.info/sct", "2.16.840.1.113883.6.96"],
  ["http://www.nlm.nih.gov/research/umls/rxnorm", "2.16.840.1.113883.6.88"],
  ["http://hl7.org/fhir/sid/cvx", "2.16.840.1.113883.12.292"],
  ["http://hl7.org/fhir/sid/icd-10-cm", "2.16.840.1.113883.6.90"],
  ["http://hl7.org/fhir/sid/icd-9-cm", "2.16.840.1.113883.6.103"],
  ["http://www.ama-assn.org/go/cpt", "2.16.840.1.113883.6.12"],
  ["http://terminology.hl7.org/CodeSystem/v3-ActCode", "2.16.840.1.113883.5.4"],
]);

export const loinc = "2.16.840.1.113883.6.1";

export interface Coding {
  readonly system?: string;
  readonly code?: string;
  readonly display?: string;
}

export interface Code {
  readonly code: string;
  readonly codeSystem: string;
  readonly displayName: string | undefined;
}

/**
 * The first coding whose system has an object identifier; undefined when there is no coding at all. Throws a business
 * error when there are some and none is of a code system that may be used.
 */
export function codeOf(codings: readonly Coding[], where: string): Code | undefined {
  for (const { system, code, display } of codings) {
    const codeSystem = system?.startsWith("urn:oid:")
      ? system.slice("urn:oid:".length)
      : oids.get(system ?? "");
    if (codeSystem !== undefined && code !== undefined) return { code, codeSystem, displayName: display };
  }
  if (codings.length === 0) return undefined;
  throw new MillraceError("rule-broken", `${where} is coded in no code system that may be used here`);
}
