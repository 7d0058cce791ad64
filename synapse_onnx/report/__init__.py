"""What people look at: results, pages, figures, drawings, activity. Needs no torch."""

from synapse_onnx.report import page as page  # which makes itself the writer of Report.to_html
