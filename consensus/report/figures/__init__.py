"""The report's figures: each module draws one group, as Plotly figures without colours of the page's own."""
