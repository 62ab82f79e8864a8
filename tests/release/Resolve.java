import java.io.File;
import org.apache.maven.repository.internal.MavenRepositorySystemUtils;
import org.eclipse.aether.RepositorySystem;
import org.eclipse.aether.artifact.DefaultArtifact;
import org.eclipse.aether.connector.basic.BasicRepositoryConnectorFactory;
import org.eclipse.aether.repository.LocalRepository;
import org.eclipse.aether.repository.RemoteRepository;
import org.eclipse.aether.repository.RepositoryPolicy;
import org.eclipse.aether.resolution.ArtifactDescriptorRequest;
import org.eclipse.aether.resolution.ArtifactRequest;
import org.eclipse.aether.resolution.VersionRangeRequest;
import org.eclipse.aether.spi.connector.RepositoryConnectorFactory;
import org.eclipse.aether.spi.connector.transport.TransporterFactory;
import org.eclipse.aether.transport.file.FileTransporterFactory;

/** Maven's own resolver on a repository in a folder: a wrong checksum is an error. REPOSITORY GROUP NAME LOCAL. */
public class Resolve {
    public static void main(String[] given) throws Exception {
        var locator = MavenRepositorySystemUtils.newServiceLocator();
        locator.addService(RepositoryConnectorFactory.class, BasicRepositoryConnectorFactory.class);
        locator.addService(TransporterFactory.class, FileTransporterFactory.class);
        var maven = locator.getService(RepositorySystem.class);
        var session = MavenRepositorySystemUtils.newSession();
        session.setLocalRepositoryManager(maven.newLocalRepositoryManager(session, new LocalRepository(given[3])));
        session.setChecksumPolicy(RepositoryPolicy.CHECKSUM_POLICY_FAIL);
        var repository = new RemoteRepository.Builder("it", "default", new File(given[0]).toURI().toString()).build();
        var any = new VersionRangeRequest(
            new DefaultArtifact(given[1], given[2], "aar", "[0,)"), java.util.List.of(repository), null);
        var version = maven.resolveVersionRange(session, any).getHighestVersion().toString();
        var library = new DefaultArtifact(given[1], given[2], "aar", version);
        var found = maven.resolveArtifact(
            session, new ArtifactRequest(library, java.util.List.of(repository), null)).getArtifact();
        var described = maven.readArtifactDescriptor(
            session, new ArtifactDescriptorRequest(library, java.util.List.of(repository), null));
        System.out.println(version + " " + found.getFile());
        described.getDependencies().forEach(d -> System.out.println(d));
    }
}
