/** The board that a demo begins with. */
import { ImmutableString } from "@concord/client";

import { type Company, isoDate, type Meeting, type User } from "./model.js";

/** Mara Lindqvist sits on the boards of three companies; `today` is when her meetings are counted from. */
export function sample(today: Date): User {
  const meeting = (inDays: number, time: string, title: string, place: string, participants: string[], agenda: string): Meeting => {
    const date = new Date(today.getFullYear(), today.getMonth(), today.getDate() + inDays);
    // Nobody meets on a weekend.
    date.setDate(date.getDate() + ({ 0: 1, 6: 2 }[date.getDay()] ?? 0));
    return {
      title,
      date: new ImmutableString(isoDate(date)),
      time: new ImmutableString(time),
      place,
      participants,
      agenda,
    };
  };
  const company = (name: string, meetings: Record<string, Meeting>): Company => ({ name, meetings });

  return {
    name: "Mara Lindqvist",
    companies: {
      nordlys: company("Nordlys Energy", {
        q4: meeting(
          12,
          "09:30",
          "Supervisory board, fourth quarter",
          "Kaivokatu 8, Helsinki, room Aurora",
          ["Mara Lindqvist", "Jonas Weber", "Aino Salmi", "Tomasz Nowak"],
          `1. Minutes of the September meeting. Jonas has sent two corrections; both concern the vote on the loan.

2. Results after three quarters. Revenue is 4 % above plan, because the wind farm at Kemi went online in July and not in September. The grid fee is still disputed, and Aino explains what a settlement would cost.

3. Budget for next year. The board decides on the second turbine line. It needs the offer of the supplier, who has promised it for the Friday before.

4. Any other business.`,
        ),
        audit: meeting(
          19,
          "13:00",
          "Audit committee",
          "Video call",
          ["Mara Lindqvist", "Aino Salmi", "Priya Raman"],
          `1. Priya reports on the interim audit. Three findings of last year are closed. The open one is the approval of travel expenses above 5,000 euros.

2. Rotation of the auditor. Two firms have made an offer, and the committee recommends one of them to the board.`,
        ),
        site: meeting(
          33,
          "11:00",
          "Visit to the Kemi wind farm",
          "Kemi, meeting point at the north gate",
          ["Mara Lindqvist", "Jonas Weber", "Tomasz Nowak"],
          `Bring boots: the way to turbine 7 is not paved. The site manager shows the repaired foundation, and afterwards there is time for questions about the noise measurements in the village.`,
        ),
        agm: meeting(
          88,
          "10:00",
          "Annual general meeting",
          "Finlandia Hall, Helsinki",
          ["Mara Lindqvist", "Jonas Weber", "Aino Salmi", "Tomasz Nowak", "Shareholders"],
          `1. Report of the management board, and questions.

2. Use of the profit. The proposal is a dividend of 0.42 euros a share; the rest stays in the company for the second turbine line.

3. Election of one member of the supervisory board. Tomasz stands again.`,
        ),
      }),
      havn: company("Havn Logistics", {
        crisis: meeting(
          3,
          "16:00",
          "Extraordinary meeting: strike at the terminal",
          "Video call",
          ["Mara Lindqvist", "Sofie Dahl", "Henrik Bang"],
          `1. Where we stand. Since Monday two of five cranes are working. Sofie reports on the talks with the union.

2. What customers are told, and by whom. The draft of the letter is in the data room.

3. Decision: may the management offer a one-off payment, and up to what amount?`,
        ),
        strategy: meeting(
          26,
          "09:00",
          "Strategy day",
          "Hotel Ottilia, Copenhagen",
          ["Mara Lindqvist", "Sofie Dahl", "Henrik Bang", "Leila Haddad", "Oskar Berg"],
          `Morning: what the electrification of the fleet costs if we do it in four years, and what it costs in seven. Leila brings both models.

Afternoon: the warehouse in Malmö. Rent it for another ten years, or buy the lot beside the port? Everybody reads the paper of the consultants beforehand; we don't repeat it in the room.`,
        ),
        personnel: meeting(
          41,
          "15:30",
          "Personnel committee",
          "Havnegade 21, Copenhagen",
          ["Mara Lindqvist", "Sofie Dahl", "Oskar Berg"],
          `1. Goals of the management board for next year. The safety figures get the same weight as the result.

2. Succession of the chief financial officer, who leaves in June. The search firm presents a long list.`,
        ),
      }),
      alba: company("Alba Biotech", {
        trial: meeting(
          8,
          "14:00",
          "Board call: results of the phase II trial",
          "Video call",
          ["Mara Lindqvist", "Dr. Ines Carvalho", "Ravi Menon", "Hanna Fischer"],
          `1. Ines presents the results before they are published. Nothing of this leaves the call: the press release goes out on Thursday at 7:00.

2. What it means for phase III: number of patients, countries, cost.

3. The partner in Basel has a right of first negotiation. Ravi explains how long it lasts.`,
        ),
        funding: meeting(
          22,
          "10:30",
          "Financing round",
          "Rua do Século 107, Lisbon",
          ["Mara Lindqvist", "Dr. Ines Carvalho", "Ravi Menon", "Hanna Fischer", "Marc Oduya"],
          `1. Cash lasts until October. Three term sheets are on the table; Hanna compares valuation, preference and board seats on one page.

2. Decision: with whom do we go on?

3. Employee options after the round.`,
        ),
        ethics: meeting(
          54,
          "09:00",
          "Ethics and safety committee",
          "Video call",
          ["Mara Lindqvist", "Dr. Ines Carvalho", "Prof. Elena Rossi"],
          `1. Two serious adverse events in the trial. The independent board sees no connection with the drug; Elena explains why.

2. Data protection: patients in the new countries get the consent form in their own language, and it has to be shorter than eight pages.`,
        ),
      }),
    },
  };
}
