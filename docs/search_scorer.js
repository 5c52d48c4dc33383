// Ranks the search's results. The functions, losses and guides of ssim_fused come before drop-ins for other packages,
// which have the same names, and before pages for developers.
const LAST = ["api_compat", "changelog", "kernel_notebook", "kernel_predictions", "path"];

var Scorer = {
  score: ([docname, title, anchor, description, score, filename, kind]) => {
    if (LAST.includes(docname)) return score - 20;
    const depth = title.split(".").length; // ssim_fused.ssim comes before ssim_fused.losses.Terms.ssim
    return docname === "api" ? score + 5 - depth / 10 : score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
