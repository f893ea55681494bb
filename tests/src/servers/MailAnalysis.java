// What the test distribution of Elasticsearch leaves out and its index of API keys is made with: three parts of the analysis
// of mail addresses. Compiled against the server and loaded by it; for tests only.

import java.util.Map;
import java.util.regex.Pattern;

import org.apache.lucene.analysis.TokenStream;
import org.apache.lucene.analysis.email.UAX29URLEmailTokenizer;
import org.apache.lucene.analysis.miscellaneous.RemoveDuplicatesTokenFilter;
import org.apache.lucene.analysis.pattern.PatternCaptureGroupTokenFilter;
import org.elasticsearch.index.analysis.TokenFilterFactory;
import org.elasticsearch.index.analysis.TokenizerFactory;
import org.elasticsearch.indices.analysis.AnalysisModule.AnalysisProvider;
import org.elasticsearch.plugins.AnalysisPlugin;
import org.elasticsearch.plugins.Plugin;

public class MailAnalysis extends Plugin implements AnalysisPlugin {
    private interface Make {
        TokenStream of(TokenStream tokens);
    }

    private static TokenFilterFactory filter(String name, Make make) {
        return new TokenFilterFactory() {
            public String name() {
                return name;
            }

            public TokenStream create(TokenStream tokens) {
                return make.of(tokens);
            }
        };
    }

    @Override
    public Map<String, AnalysisProvider<TokenFilterFactory>> getTokenFilters() {
        return Map.of("pattern_capture", (index, environment, name, settings) -> {
            Pattern[] patterns = settings.getAsList("patterns").stream().map(Pattern::compile).toArray(Pattern[]::new);
            boolean original = settings.getAsBoolean("preserve_original", true);
            return filter(name, tokens -> new PatternCaptureGroupTokenFilter(tokens, original, patterns));
        }, "unique", (index, environment, name, settings) -> filter(name, RemoveDuplicatesTokenFilter::new));
    }

    @Override
    public Map<String, AnalysisProvider<TokenizerFactory>> getTokenizers() {
        return Map.of("uax_url_email",
            (index, environment, name, settings) -> TokenizerFactory.newFactory(name, UAX29URLEmailTokenizer::new));
    }
}
