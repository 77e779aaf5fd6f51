import java.io.FileInputStream;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import org.apache.kafka.connect.mirror.RemoteClusterUtils;

/**
 * What MirrorMaker's released client says of a cluster, by {@code RemoteClusterUtils}.
 *
 * <p>Arguments: client.properties, bootstrap server, alias of the source cluster, groups.
 */
class MirrorClientSays {
    public static void main(String[] args) throws Exception {
        Properties file = new Properties();
        try (FileInputStream in = new FileInputStream(args[0])) {
            file.load(in);
        }
        Map<String, Object> config = new HashMap<>();
        file.forEach((key, value) -> config.put((String) key, value));
        config.put("bootstrap.servers", args[1]);
        System.out.println("upstream " + new TreeSet<>(RemoteClusterUtils.upstreamClusters(config)));
        System.out.println("hops " + RemoteClusterUtils.replicationHops(config, args[2]));
        System.out.println("heartbeats " + new TreeSet<>(RemoteClusterUtils.heartbeatTopics(config)));
        System.out.println("checkpoints " + new TreeSet<>(RemoteClusterUtils.checkpointTopics(config)));
        for (int n = 3; n < args.length; n++) {
            String group = args[n];
            RemoteClusterUtils.translateOffsets(config, args[2], group, Duration.ofSeconds(30))
                .forEach((at, offset) ->
                    System.out.println("offset " + group + " " + at.topic() + " " + at.partition() + " " + offset.offset()));
        }
    }
}
